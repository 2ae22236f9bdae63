"""What stands in on one machine for servers that others run: NATS, PostgreSQL, a model; and the supervisor."""
