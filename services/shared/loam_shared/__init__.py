"""What every service shares: errors, money, credentials, logging, and the wire types of the seams between rooms."""
