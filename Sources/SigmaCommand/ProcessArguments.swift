import CSigma
import Sigma
import SystemLibrary

/// What the command was called with. The system hands it to the process; Swift's own list needs /proc.
enum ProcessArguments {
    /// As the system has them, the program's name first.
    private static var bytes: [UnsafeRawBufferPointer] {
        let (count, values) = (Int(sigma_argument_count()), sigma_arguments())
        guard count > 0, let values else {
            return (0..<Int(CommandLine.argc)).compactMap { CommandLine.unsafeArgv[$0] }.map {
                UnsafeRawBufferPointer(start: $0, count: strlen($0))
            }
        }
        return (0..<count).compactMap { values[$0] }.map { UnsafeRawBufferPointer(start: $0, count: strlen($0)) }
    }

    /// The program's name as it was called.
    static var program: String { bytes.first.map { String(decoding: $0, as: UTF8.self) } ?? "" }

    /// Those after the program's name.
    ///
    /// - Throws: `SigmaError` (`.usage`) naming the first one that is not UTF-8: it would be read as another.
    static func texts() throws -> [String] {
        try bytes.dropFirst().enumerated().map { index, bytes in
            guard isValidUTF8(bytes) else {
                let offset = InputFile.firstInvalidByte(of: Array(bytes)) ?? 0
                throw usageError(
                    "argument \(index + 1) is not UTF-8 text: byte \(offset) of it is 0x\(String(bytes[offset], radix: 16))"
                )
            }
            return String(decoding: bytes, as: UTF8.self)
        }
    }
}
