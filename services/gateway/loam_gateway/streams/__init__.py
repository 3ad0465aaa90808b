"""Streams that outlive a lost connection: who opted in may go on listening, at any gateway."""
