"""Declarations of the functions and methods whose meaning the compiler itself gives."""
