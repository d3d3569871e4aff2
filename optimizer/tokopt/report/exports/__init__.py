"""Plans as files of serving tools: one module a tool, with its flags as a table and the version that they are of."""
