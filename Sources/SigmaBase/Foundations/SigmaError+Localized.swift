#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

// What applications show of an error.
extension SigmaError: LocalizedError {
    /// Where and what, in one line.
    public var errorDescription: String? { description(remedy: nil) }
    /// What to do, in the library's words.
    public var recoverySuggestion: String? { remedy?.description }
}
