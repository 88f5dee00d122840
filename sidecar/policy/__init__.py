"""PURE. Policy documents to snapshots, and snapshots to decisions.

codec     bytes <-> Policy            (document: YAML; shape, words: what does not fit)
validate  what a policy may not mean
snapshot  Policy, pins and kills, indexed for deciding
resolver  snapshot + caller + head -> Decision
match     conditions on a caller      (target: the parts of a request target)
bucket    sticky weighted choice
route     which model a request is for
rewrite   how a request is spelled for one version
diff      what changes between two policies
trace     a decision told step by step
"""
