"""What tests share: time limits, private services, and a server in a process of its own."""
