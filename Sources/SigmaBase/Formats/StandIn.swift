/// What lies in a file's place when a download went wrong.
package enum StandIn {
    case pointer, page, archive

    /// How gzip, zip, xz, Zstandard, bzip2 and 7-Zip files begin.
    private static let archives: [[UInt8]] = [
        [0x1f, 0x8b], [0x50, 0x4b, 0x03, 0x04], [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], [0x28, 0xb5, 0x2f, 0xfd],
        [0x42, 0x5a, 0x68, 0x39], [0x37, 0x7a, 0xbc, 0xaf],
    ]

    /// - Parameter bytes: the file's.
    init?(_ bytes: UnsafeRawBufferPointer) {
        let start = bytes.prefix(256)
        if start.starts(with: "version https://git-lfs.github.com/".utf8) {
            self = .pointer
            return
        }
        if Self.archives.contains(where: { start.starts(with: $0) }) {
            self = .archive
            return
        }
        // A page may begin with a byte-order mark, white space or a comment.
        let text = start.drop { $0 <= 0x20 || $0 == 0xef || $0 == 0xbb || $0 == 0xbf }
        let lower = text.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
        guard
            ["<!doctype", "<html", "<head", "<?xml", "<!--", "<error"].contains(where: { lower.starts(with: $0.utf8) })
        else { return nil }
        self = .page
    }

    /// - Parameter expected: what should be there: "a GGUF file".
    /// - Throws: `SigmaError` (`.damaged`) if the file is something that only lies in another's place.
    package static func check(_ file: MappedFile, expected: String) throws {
        guard let found = StandIn(file.bytes) else { return }
        let (what, remedy): (String, Remedy) =
            switch found {
            case .pointer:
                ("a git-lfs pointer, not the file itself", "Fetch the files with git lfs pull, or download them again.")
            case .page:
                ("a web page or an error message of a server", "Download the file again; a login may be needed.")
            case .archive: ("a compressed file", "Unpack it first.")
            }
        throw SigmaError(
            .damaged, "expected \(expected), found \(what)", path: file.path, offset: 0, remedy: remedy)
    }
}
