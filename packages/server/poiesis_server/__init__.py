"""What long-running services share: settings from environment variables, and the health port."""
