import CBenchmarkSupport
import SampleFiles
import Sigma
import SystemLibrary

/// `fuzz-headers [ROUNDS] [SEED] [FIRST]`: damages headers of model files and opens them in this process. Ends with 1 and the round's number at
/// the first finding: a crash, a round that takes seconds, an error that is none, or memory beyond the file's size.
@main struct FuzzHeaders {
    /// What a round may ask for at once beyond the file's size: tables of fixed size, for instance for the longest token there may be.
    static let allowance = 4 << 20
    static let secondsLimit: UInt32 = 10

    static func main() throws {
        let arguments = CommandLine.arguments.dropFirst().map { Int($0) }
        guard !arguments.contains(nil), arguments.count <= 3 else {
            say("usage: fuzz-headers [ROUNDS] [SEED] [FIRST]\n")
            exit(64)
        }
        func argument(_ i: Int, _ standard: Int) -> Int { arguments.count > i ? arguments[i]! : standard }
        let (rounds, seed, first) = (argument(0, 100_000), UInt64(argument(1, 1)), argument(2, 0))

        let base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        let folder = "\(base)/sigma-fuzz-\(getpid())"
        guard mkdir(folder, 0o700) == 0 else { throw SigmaError(.inputOutput, "cannot make the folder", path: folder) }
        defer {
            for kind in HeaderFuzz.Kind.allCases { unlink("\(folder)/\(kind.rawValue).gguf") }
            rmdir(folder)
        }
        let fuzz = try HeaderFuzz(folder: folder)
        // A crash or a hang says which round it was.
        for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGALRM] {
            signal(fault) { _ in reportCurrentRound() }
        }

        var accepted: [HeaderFuzz.Kind: Int] = [:]
        var largest = (share: 0.0, bytes: Int64(0), number: 0)
        var slowest = (seconds: 0.0, number: 0)
        let begin = monotonicTime()
        for number in first..<first + rounds {
            currentRound = number
            alarm(secondsLimit)
            benchmark_watch_allocations()
            let start = monotonicTime()
            let (kind, fileSize, outcome) = fuzz.round(seed: seed, number: number)
            let seconds = monotonicTime() - start
            let bytes = benchmark_largest_allocation()
            if seconds > slowest.seconds { slowest = (seconds, number) }
            // The damaged header itself is a copy that this program makes; it is never larger than the file was.
            if bytes > largest.bytes { largest = (Double(bytes) / Double(fuzz.sizes[kind]!), bytes, number) }
            if bytes > Int64(max(fileSize, fuzz.sizes[kind]!) + allowance) {
                fail("round \(number) (\(kind)): \(bytes) bytes at once for a file of \(fileSize)")
            }
            switch outcome {
            case .accepted: accepted[kind, default: 0] += 1
            case .refused: break
            case .finding(let what): fail("round \(number) (\(kind)): \(what)")
            }
        }
        alarm(0)
        let seconds = monotonicTime() - begin
        let kinds = HeaderFuzz.Kind.allCases.map { "\($0) \(accepted[$0, default: 0])" }.joined(separator: ", ")
        print(
            """
            rounds              \(rounds), seed \(seed), \(Int(Double(rounds) / seconds)) a second
            files               \(HeaderFuzz.Kind.allCases.map { "\($0) of \(fuzz.sizes[$0]!) bytes" }.joined(separator: ", "))
            accepted            \(kinds)
            refused             \(rounds - accepted.values.reduce(0, +)), every one as a damaged file by its name
            slowest round       \(Int(slowest.seconds * 1e6)) us (round \(slowest.number))
            largest allocation  \(largest.bytes) bytes (round \(largest.number))
            """)
    }

    static func fail(_ text: String) -> Never {
        say(text + "\n")
        exit(1)
    }

    private static func say(_ text: String) {
        var text = text
        text.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
    }
}

/// For the signal handler.
nonisolated(unsafe) private var currentRound = 0

/// Only calls that a signal handler may make.
private func reportCurrentRound() -> Never {
    var digits: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8, UInt8) =
        (32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 10)
    withUnsafeMutableBytes(of: &digits) { bytes in
        var rest = currentRound
        var place = 10
        repeat {
            bytes[place] = UInt8(48 + rest % 10)
            rest /= 10
            place -= 1
        } while rest > 0 && place >= 0
        _ = write(2, bytes.baseAddress, bytes.count)
    }
    _ = "crash or hang in this round\n".utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
    _exit(1)
}
