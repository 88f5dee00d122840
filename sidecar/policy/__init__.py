"""PURE. Policy documents to snapshots, and snapshots to decisions.

codec     bytes <-> Policy            (document: YAML; pieces: JSON; shape, words: what does not
                                       fit; places: where)
steps     how all of this is done without holding up a loop
validate  what a policy may not mean  (deployment, condition, address, circle, reach: its parts)
schema    how a document looks, for editors
compiled  Policy, indexed for deciding    (candidate, ruleset, segment, sticky: its parts)
snapshot  the same with pins, kills and readiness  (pins: those of a model)
resolver  snapshot + caller + head -> Decision
match     conditions on a caller      (check: on one value, with semver, network and moment;
                                       target: the parts of a request target)
bucket    sticky weighted choice
route     which model a request is for
rewrite   how a request is spelled for one version
attributes  what a policy looks at, taken from requests and given back
plan      what another policy would change for them  (gaps: what cannot be told)
diff      what changes between two policies
trace     a decision told step by step  (trial: what becomes of many callers)
"""
