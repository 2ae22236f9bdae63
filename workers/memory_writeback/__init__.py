"""The stage after the reply: counts it into its session, names a new session, and writes memory."""
