// Whoever imports `Sigma` has its errors and its constraints, too.
@_exported import SigmaBase
@_exported import SigmaGrammar
