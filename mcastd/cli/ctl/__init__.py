"""`mcastctl`, built at run time from the contract's descriptor image: nothing but `top` names an RPC or a field of it."""
