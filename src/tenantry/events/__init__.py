"""What has happened in an organization: written down with the data that it happened to, and handed to jobs."""
