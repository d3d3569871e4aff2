"""Nouns that two rooms talk about: frozen records without behaviour beyond their own consistency."""
