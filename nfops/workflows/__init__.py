"""The verbs as functions: no terminal. A workflow may not import another one."""
