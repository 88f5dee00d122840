"""Who calls: verification keys, tokens, and the memory of tokens already verified.

    JWKS file -> keys.KeySet -> tokens.Verifier -> cache.IdentityCache -> Identity

Every refusal leaves here as `TokenRefused`; every unusable key file as `KeySetError`.
"""
