import Foundation
import SystemLibrary
import Testing

/// A `sigma-run` at a pseudo-terminal, with a person's keys and what the screen shows.
final class ChatProcess {
    let pid: pid_t
    private let master: Int32
    /// Kept open, so that the terminal's modes can be seen after the process has ended.
    private let terminal: Int32
    private let modesBefore: termios
    private(set) var screen: VirtualTerminal
    /// Everything that was written, control sequences and all.
    private(set) var output: [UInt8] = []

    /// - Parameter command: another command than `sigma-run`.
    init(
        _ arguments: [String], command: String = "sigma-run", columns: Int = 80, height: Int = 24,
        environment: [String: String] = [:], stateFolder: String? = nil
    ) throws {
        screen = VirtualTerminal(columns: columns, height: height)
        // Another process that is started meanwhile would hold both ends open.
        Subprocess.starting.lock()
        defer { Subprocess.starting.unlock() }
        var (master, terminal): (Int32, Int32) = (-1, -1)
        try #require(openpty(&master, &terminal, nil, nil, nil) == 0)
        for end in [master, terminal] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        (self.master, self.terminal) = (master, terminal)
        var bytes = [CChar](repeating: 0, count: 256)
        try #require(ttyname_r(terminal, &bytes, bytes.count) == 0)
        let name = bytes.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        var modes = termios()
        try #require(tcgetattr(terminal, &modes) == 0)
        modesBefore = modes
        Self.setSize(master, columns, height)

        let variables = ["TERM": "xterm-256color", "XDG_STATE_HOME": stateFolder ?? Scratch.path("state")]
        pid = try Subprocess.spawn(
            command, arguments, environment: variables.merging(environment) { $1 }, flags: Self.newSession
        ) { actions in
            // The first terminal that a session's leader opens is its own.
            posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0)
            posix_spawn_file_actions_adddup2(&actions, 0, 1)
            posix_spawn_file_actions_adddup2(&actions, 0, 2)
        }
    }

    deinit {
        close(master)
        close(terminal)
    }

    #if canImport(Darwin)
        private static let newSession = Int16(POSIX_SPAWN_SETSID)
    #else
        /// POSIX_SPAWN_SETSID, which glibc's and musl's headers show only to GNU programs.
        private static let newSession: Int16 = 0x80
    #endif

    private static func setSize(_ descriptor: Int32, _ columns: Int, _ height: Int) {
        var size = winsize(ws_row: UInt16(height), ws_col: UInt16(columns), ws_xpixel: 0, ws_ypixel: 0)
        _ = ioctl(descriptor, UInt(TIOCSWINSZ), &size)
    }

    // MARK: - The person

    func type(_ text: String) {
        let bytes = Array(text.utf8)
        var done = 0
        while done < bytes.count {
            let count = bytes[done...].withUnsafeBytes { write(master, $0.baseAddress, $0.count) }
            if count <= 0 { return }
            done += count
        }
    }

    func enter(_ text: String) { type(text + "\r") }

    /// As terminals send what is pasted.
    func paste(_ text: String) {
        type(
            "\u{1b}[200~" + text.split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "\r")
                + "\u{1b}[201~")
    }

    func resize(columns: Int, height: Int) {
        drain()
        screen.resize(columns: columns, height: height)
        Self.setSize(master, columns, height)
    }

    // MARK: - The screen

    /// Takes what the process writes until `condition` holds.
    func wait(
        _ what: String, seconds: Double = 60, location: SourceLocation = #_sourceLocation,
        until condition: (VirtualTerminal) -> Bool
    ) throws {
        let deadline = Date().addingTimeInterval(seconds)
        while !condition(screen) {
            guard Date() < deadline, take(milliseconds: 100) else {
                Issue.record("waited in vain for \(what); the screen:\n\(screen.text)", sourceLocation: location)
                throw CancellationError()
            }
        }
    }

    /// The prompt is there, with nothing typed, below everything else.
    func waitForPrompt(after count: Int = 0, location: SourceLocation = #_sourceLocation) throws {
        try wait("the prompt", location: location) { screen in
            screen.cursorRow == ">" && screen.column == 2 && screen.cursorIsVisible
                && screen.rows.filter { $0.hasPrefix(">") }.count > count
        }
    }

    private func drain() { while take(milliseconds: 50, isOpen: nil) == true {} }

    /// - Returns: false when the process has closed the terminal.
    private func take(milliseconds: Int32) -> Bool { take(milliseconds: milliseconds, isOpen: true) ?? false }

    private func take(milliseconds: Int32, isOpen quiet: Bool?) -> Bool? {
        var descriptor = pollfd(fd: master, events: Int16(POLLIN), revents: 0)
        guard poll(&descriptor, 1, milliseconds) > 0 else { return quiet }
        var buffer = [UInt8](repeating: 0, count: 1 << 14)
        let count = read(master, &buffer, buffer.count)
        guard count > 0 else { return false }
        output += buffer[..<count]
        screen.write(buffer[..<count])
        return true
    }

    // MARK: - The end

    /// The exit code, when the process ends within the time; then the terminal must be as it was.
    func end(location: SourceLocation = #_sourceLocation) throws -> Int32 {
        var status: Int32 = 0
        let deadline = Date().addingTimeInterval(60)
        while waitpid(pid, &status, WNOHANG) == 0 {
            guard Date() < deadline else {
                kill(pid, SIGKILL)
                Issue.record("the process does not end; the screen:\n\(screen.text)", sourceLocation: location)
                throw CancellationError()
            }
            _ = take(milliseconds: 20)
        }
        while take(milliseconds: 50, isOpen: nil) == true {}
        var modes = termios()
        tcgetattr(terminal, &modes)
        #expect(
            modes.c_lflag == modesBefore.c_lflag && modes.c_iflag == modesBefore.c_iflag
                && modes.c_oflag == modesBefore.c_oflag, sourceLocation: location)
        #expect(!screen.pasteIsBracketed && screen.cursorIsVisible, sourceLocation: location)
        #expect(screen.unknown.isEmpty, "\(screen.unknown)", sourceLocation: location)
        let signal = status & 0x7f
        return signal == 0 ? (status >> 8) & 0xff : 128 + signal
    }
}
