"""The web page and its JSON API: questions to calls of `api`, records to JSON, limits on both."""
