"""Child processes for work on untrusted bytes: one runner, resource limits and a system call filter."""
