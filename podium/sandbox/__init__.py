"""Child processes for work on untrusted bytes: a runner, resource limits and a system call filter."""
