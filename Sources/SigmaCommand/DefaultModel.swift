import ArgumentParser
import Sigma
import SystemLibrary

/// `--model`, the same in every command: `@OptionGroup var model: ModelOption`, then `try model.path`.
public struct ModelOption: ParsableArguments {
    @Option(
        name: .customLong("model"),
        help: ArgumentHelp(
            "A native model file (default: $SIGMA_MODEL, else the demo model).", valueName: "path"))
    var given: String?

    public init() {}

    /// - Throws: `SigmaError` (`.noInput`) if none is given and there is no default.
    public var path: String {
        get throws { try given ?? defaultModelPath() }
    }
}

/// The model that commands use if none is named: `$SIGMA_MODEL`, else `sigma/demo.gguf` in `../share` beside the executable, else
/// `Models/demo.gguf` in the package that the executable was built in, or in the working directory.
///
/// - Throws: `SigmaError` (`.noInput`) if there is none.
public func defaultModelPath() throws -> String {
    if let named = getenv("SIGMA_MODEL").map({ String(cString: $0) }), !named.isEmpty { return named }
    if let found = demoFile(installed: "demo.gguf", inPackage: "Models/demo.gguf") { return found }
    throw SigmaError(
        .noInput, "no model was named, and there is no demo model",
        remedy: "Name one with --model or SIGMA_MODEL, or make the demo model: make demo")
}

/// A file that comes with the demo model: in `../share/sigma` beside the executable, or in the package that the executable was built
/// in, or in the working directory; nil where there is none.
public func demoFile(installed: String, inPackage path: String) -> String? {
    var candidates: [String] = []
    if let executable = executablePath() {
        var folder = parent(executable)
        candidates.append(parent(folder) + "/share/sigma/" + installed)
        while folder.count > 1 {
            if exists(folder + "/Package.swift") {
                candidates.append(folder + "/" + path)
                break
            }
            folder = parent(folder)
        }
    }
    candidates.append(path)
    return candidates.first(where: exists)
}

private func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

private func parent(_ path: String) -> String {
    guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return "/" }
    return String(path[..<slash])
}

/// Where this program's file is, symbolic links resolved; nil where the system doesn't tell.
private func executablePath() -> String? {
    #if canImport(Darwin)
        var size: UInt32 = 0
        _NSGetExecutablePath(nil, &size)
        var name = [CChar](repeating: 0, count: Int(size) + 1)
        guard _NSGetExecutablePath(&name, &size) == 0, let resolved = realpath(name, nil) else { return nil }
    #else
        // Without /proc the name that it was called by may do.
        guard let resolved = realpath("/proc/self/exe", nil) ?? realpath(ProcessArguments.program, nil) else {
            return nil
        }
    #endif
    defer { free(resolved) }
    return String(cString: resolved)
}

/// What `--version` prints.
public let sigmaVersion = "0.2.0"
