import Foundation
import SystemLibrary
import Testing

/// The built commands (or a program by its path) as processes. Tests may run side by side.
struct Subprocess {
    struct Result {
        var code: Int32
        var output: [UInt8]
        var errors: String

        var text: String { String(decoding: output, as: UTF8.self) }
        var lines: [Substring] { text.split(separator: "\n") }
    }

    let pid: pid_t
    private let errorFile: String
    /// The read end of its standard output, if that is a pipe.
    let output: Int32

    // MARK: - Whole runs

    /// Runs a command to its end.
    ///
    /// - Parameter environment: beside this process's own, without SIGMA_MODEL; nil removes a variable.
    static func run(
        _ command: String, _ arguments: [String], input: [UInt8] = [], environment: [String: String] = [:]
    ) throws -> Result {
        let inputFile = Scratch.path("stdin")
        try Data(input).write(to: URL(fileURLWithPath: inputFile))
        let process = try Subprocess(command, arguments, inputFile: inputFile, environment: environment)
        let bytes = process.readToEnd()
        let result = process.wait()
        return Result(code: result.code, output: bytes, errors: result.errors)
    }

    // MARK: - Running ones

    /// Held while descriptors are made that a process started meanwhile must not inherit.
    static let starting = NSLock()

    init(
        _ command: String, _ arguments: [String], inputFile: String = "/dev/null", environment: [String: String] = [:]
    ) throws {
        // Another process started between the pipe and its flags would hold the pipe open.
        Self.starting.lock()
        defer { Self.starting.unlock() }
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        errorFile = Scratch.path("stderr")
        pid = try Self.spawn(command, arguments, environment: environment) { [errorFile] actions in
            posix_spawn_file_actions_addopen(&actions, 0, inputFile, O_RDONLY, 0)
            posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
            posix_spawn_file_actions_addopen(&actions, 2, errorFile, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        }
        close(ends[1])
        output = ends[0]
    }

    #if os(Linux)
        typealias FileActions = posix_spawn_file_actions_t
    #else
        typealias FileActions = posix_spawn_file_actions_t?
    #endif

    /// Starts a process. `starting` is held.
    ///
    /// - Parameters:
    ///   - environment: beside this process's own, without SIGMA_MODEL.
    ///   - flags: of `posix_spawn`, beside those that are always wanted.
    ///   - setUp: says what its standard streams are.
    static func spawn(
        _ command: String, _ arguments: [String], environment: [String: String], flags: Int16 = 0,
        setUp: (inout FileActions) -> Void
    ) throws -> pid_t {
        var variables = ProcessInfo.processInfo.environment
        variables["SIGMA_MODEL"] = nil
        variables.merge(environment) { $1 }
        #if os(Linux)
            var actions = posix_spawn_file_actions_t()
            var attributes = posix_spawnattr_t()
        #else
            var actions: posix_spawn_file_actions_t?
            var attributes: posix_spawnattr_t?
        #endif
        posix_spawn_file_actions_init(&actions)
        setUp(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // Threads of the test runner block signals, and a child would inherit that.
        var noSignals = sigset_t()
        sigemptyset(&noSignals)
        posix_spawnattr_init(&attributes)
        posix_spawnattr_setsigmask(&attributes, &noSignals)
        // Whoever runs the tests may ignore what ends a command.
        var ends = noSignals
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { sigaddset(&ends, signal) }
        posix_spawnattr_setsigdefault(&attributes, &ends)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | flags)
        defer { posix_spawnattr_destroy(&attributes) }
        let path = try Self.path(of: command)
        var argv = ([path] + arguments).map { strdup($0) } + [nil]
        var envp = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid: pid_t = 0
        try #require(posix_spawn(&pid, path, &actions, &attributes, &argv, &envp) == 0)
        return pid
    }

    /// The next piece of standard output; empty at its end.
    func read() -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = SystemLibrary.read(output, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            return Array(buffer.prefix(max(0, count)))
        }
    }

    func readToEnd() -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let piece = read()
            if piece.isEmpty { break }
            all += piece
        }
        close(output)
        return all
    }

    /// The exit code (128 + number for a signal) and standard error. Standard output must have been read or closed.
    func wait() -> (code: Int32, errors: String) {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        let signal = status & 0x7f
        let errors = (try? Data(contentsOf: URL(fileURLWithPath: errorFile))) ?? Data()
        return (signal == 0 ? (status >> 8) & 0xff : 128 + signal, String(decoding: errors, as: UTF8.self))
    }

    // MARK: - Where the commands are

    /// Beside the test bundle, wherever that was built; else in the package's build folder.
    static func path(of command: String) throws -> String {
        if command.hasPrefix("/") { return command }
        var candidates: [String] = []
        for argument in CommandLine.arguments + [Bundle.main.executablePath ?? ""] {
            var folder = URL(fileURLWithPath: argument).deletingLastPathComponent()
            for _ in 0..<4 {
                candidates.append(folder.appendingPathComponent(command).path)
                folder.deleteLastPathComponent()
            }
        }
        #if DEBUG
            let configurations = ["debug", "release"]
        #else
            let configurations = ["release", "debug"]
        #endif
        candidates += configurations.map { "\(packageRoot)/.build/\($0)/\(command)" }
        let found = candidates.first { FileManager.default.isExecutableFile(atPath: $0) }
        return try #require(found, "\(command) is not built")
    }
}

let packageRoot = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

/// A folder for the files of one test run.
enum Scratch {
    static let folder: String = {
        let path = NSTemporaryDirectory() + "sigma-command-tests-\(getpid())"
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        atexit {
            try? FileManager.default.removeItem(atPath: Scratch.folder)
        }
        return path
    }()

    /// A path that no other call returns.
    static func path(_ name: String) -> String { "\(folder)/\(UUID().uuidString)-\(name)" }

    static func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = path(name)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }

    static func file(_ name: String, _ text: String) throws -> String { try file(name, Array(text.utf8)) }
}
