#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

extension SigmaModel {
    /// Loads a native model file. See `load(from:configuration:progress:)` for a path.
    ///
    /// - Throws: `SigmaError(.usage)` for a URL that is no file's; otherwise as for a path.
    public static func load(
        from url: URL, configuration: Configuration = Configuration(), progress: (@Sendable (Double) -> Void)? = nil
    ) async throws -> SigmaModel {
        guard url.isFileURL else {
            throw SigmaError(.usage, "a model is loaded from a file, and this is none: \(url.absoluteString)")
        }
        return try await load(from: url.path, configuration: configuration, progress: progress)
    }
}
