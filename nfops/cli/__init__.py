"""The terminal: argv to checked options, one call of a workflow, the result to files, stdout and an exit code."""
