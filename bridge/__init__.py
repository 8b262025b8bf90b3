"""AWS Lambda's event source mapping as a program you own."""

__version__ = "0.1.0"
