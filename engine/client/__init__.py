"""What the terminal may use of the engine: protocol, connection, run directories, launch and kill."""
