"""`mcastctl`, built at run time from the contract's descriptor image: nothing in here names an RPC or a field of it."""
