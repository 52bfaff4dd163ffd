// Whoever imports `Sigma` has its errors, too.
@_exported import SigmaBase
