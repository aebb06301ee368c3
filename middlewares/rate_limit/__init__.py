"""The stage `rate_limit`: how much of its rate each caller, tenant, tool or address has used."""
