"""The paper: tables and figures from recorded results."""
