"""The first stage: takes a turn in, says whether it was accepted, and gathers what the reply is made from."""
