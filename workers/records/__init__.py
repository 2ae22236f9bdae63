"""The records stage: answers the API's questions about callers, sessions and turns."""
