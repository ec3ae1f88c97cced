"""The vocabulary that model families are written in, and one implementation of it per array library."""
