"""PostgreSQL for Twisted: sessions, a pool, LISTEN. Knows nothing of OpenEMS."""
