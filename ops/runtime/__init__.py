"""What every process stands on: configuration, logs, the bus, PostgreSQL, health. Imports schemas only."""
