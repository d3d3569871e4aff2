"""Records to something readable: rich renderables that say what a figure is, its unit and where it comes from."""
