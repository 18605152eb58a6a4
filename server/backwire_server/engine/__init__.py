"""Graphs of operators: checked, differentiated, planned and computed; knows NumPy only."""
