"""The admin interface: what probes, scrapers and the operations commands ask the daemon."""
