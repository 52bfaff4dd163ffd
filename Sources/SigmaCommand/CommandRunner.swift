import ArgumentParser
import CSigma
import Sigma
import SystemLibrary

/// What a command's `main.swift` consists of: parses the arguments, runs the command and ends the process with the exit code that
/// `docs` and scripts rely on (0, 64, 65, 66, 69, 74, 130), with `error: ...` on stderr.
///
///     runCommand(Convert.self)
public func runCommand<Command: ParsableCommand>(_ type: Command.Type) -> Never {
    prepareProcess()
    guard sigma_ensure_stacks(Int64(stackBytes)) == 0 else { parseAndRun(type) }
    // The stack of the process's first thread is too small, and must stay so.
    do {
        try NativeThread { parseAndRun(type) }.join()
        endProcess(0)
    } catch {
        end(type, with: error)
    }
}

/// Bytes of stack that commands are tested with.
private let stackBytes = 1 << 20

private func parseAndRun<Command: ParsableCommand>(_ type: Command.Type) -> Never {
    do {
        Interrupt.endsProcess()
        try AvailableMemory.checkProcessLimits()
        var command = try Command.parseAsRoot(ProcessArguments.texts())
        try command.run()
        try StandardOutput.flush()
        endProcess(0)
    } catch {
        end(type, with: error)
    }
}

/// A wrong combination of arguments that the parser itself cannot see: exit code 64.
public func usageError(_ message: String, remedy: Remedy? = nil) -> SigmaError {
    SigmaError(.usage, message, remedy: remedy)
}

/// `warning: ...` on stderr.
public func warn(_ message: String) {
    ProgressBar.clearLine()
    StandardError.write(label: "warning: ", .yellow, SigmaError.printable(message) + "\n")
}

/// A line for the person at the terminal, on stderr.
public func note(_ message: String) {
    ProgressBar.clearLine()
    StandardError.write(message + "\n")
}

private func prepareProcess() {
    // A standard stream that was closed would be the next file that is opened. In its place goes one that fails as it did.
    for descriptor in Int32(0)...2 where fcntl(descriptor, F_GETFD) < 0 {
        _ = open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY)
    }
    // A closed pipe is then an error of write, which ends the command quietly but lets it clean up.
    signal(SIGPIPE, SIG_IGN)
    // The same for a file that grows beyond the process's limit.
    signal(SIGXFSZ, SIG_IGN)
}

private func end<Command: ParsableCommand>(_ type: Command.Type, with error: any Error) -> Never {
    ProgressBar.clearLine()
    switch error {
    case is StandardOutput.Closed:
        endProcess(0)
    case let error as SigmaError:
        // What was written so far stands before the error even if both go to the same place.
        try? StandardOutput.flush()
        StandardError.write(label: "error: ", .red, error.report + "\n")
        endProcess(error.kind.exitCode)
    case is CancellationError:
        try? StandardOutput.flush()
        endProcess(SigmaError.Kind.interrupted.exitCode)
    default:
        // --help and --version are errors to the parser, too.
        guard type.exitCode(for: error) != .success else {
            do {
                try StandardOutput.write(type.fullMessage(for: error) + "\n")
                try StandardOutput.flush()
            } catch { end(type, with: error) }
            endProcess(0)
        }
        let name = type.configuration.commandName ?? type._commandName
        let message = type.message(for: error)
        StandardError.write(
            label: "error: ", .red,
            SigmaError.printable(message) + "\n"
                // The name that all our options with sizes give their value.
                + (message.contains(" <size") ? ByteSize.hint : "The options are listed by: \(name) --help") + "\n")
        endProcess(SigmaError.Kind.usage.exitCode)
    }
}

/// Ends the process at once, whatever its other threads do; any thread may call. What was written to `StandardOutput` must be flushed.
///
/// Libraries' exit handlers are passed over: there is nothing to clean up that the system doesn't, and OpenBLAS's (0.3.21) waits for
/// ever if one of its threads is still starting.
public func endProcess(_ code: Int32) -> Never {
    fflush(nil)
    _exit(code)
}
