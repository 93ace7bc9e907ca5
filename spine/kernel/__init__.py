"""The kernel, on which every product builds. In order: values, resources of a process, unit of work, store, routes."""
