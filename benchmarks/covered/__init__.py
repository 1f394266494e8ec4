"""Networks of the ecosystem as their users have them, one module for each library."""
