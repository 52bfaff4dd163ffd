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
        try await load(from: path(of: url), configuration: configuration, progress: progress)
    }
}

extension Session {
    /// Writes the conversation and its key-value state into a file. See `save(to:)` for a path.
    ///
    /// - Throws: `SigmaError(.usage)` for a URL that is no file's; otherwise as for a path.
    public func save(to url: URL) throws { try save(to: path(of: url)) }

    /// Brings a saved conversation back. See `restore(from:)` for a path.
    ///
    /// - Throws: `SigmaError(.usage)` for a URL that is no file's; otherwise as for a path.
    public func restore(from url: URL) throws { try restore(from: path(of: url)) }
}

private func path(of url: URL) throws -> String {
    guard url.isFileURL else {
        throw SigmaError(.usage, "expected a file's URL, found \(url.absoluteString)")
    }
    return url.path
}
