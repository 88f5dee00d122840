"""Who calls: verification keys, tokens, and the memory of tokens already verified.

    keys of an issuer -> keys.KeySet -> tokens.Verifier -> cache.IdentityCache -> Identity

Who calls without a token is told by `callers`. Every refusal leaves here as `TokenRefused`; every
unusable set of keys as `KeySetError`.
"""
