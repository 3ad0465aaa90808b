"""The response cache: the same request of the same tenant is answered once, and then from here, at no cost.

Whatever lies in Redis is encrypted, may be lost at any time, and is found by a key that holds the tenant's uid.
"""
