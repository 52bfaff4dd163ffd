/// NVRTC, found at run time: compiles CUDA C++ for one architecture.
struct CUDACompiler: Sendable {
    private typealias Program = UnsafeMutableRawPointer
    private typealias Text = UnsafePointer<CChar>

    let version: (major: Int32, minor: Int32)
    private let createProgram:
        @convention(c) (
            UnsafeMutablePointer<Program?>, Text, Text, Int32, UnsafePointer<Text?>?, UnsafePointer<Text?>?
        ) -> Int32
    private let compileProgram: @convention(c) (Program, Int32, UnsafePointer<Text?>?) -> Int32
    private let logSize: @convention(c) (Program, UnsafeMutablePointer<Int>) -> Int32
    private let log: @convention(c) (Program, UnsafeMutablePointer<CChar>) -> Int32
    private let imageSize: @convention(c) (Program, UnsafeMutablePointer<Int>) -> Int32
    private let image: @convention(c) (Program, UnsafeMutablePointer<CChar>) -> Int32
    private let destroyProgram: @convention(c) (UnsafeMutablePointer<Program?>) -> Int32
    private let errorText: @convention(c) (Int32) -> Text?

    private static let names = [
        "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so", "/usr/local/cuda/lib64/libnvrtc.so",
    ]

    /// - Parameter chosen: the library in place of the usual ones; nil: the usual ones.
    /// - Throws: `CUDAUnavailable`.
    init(_ chosen: String?) throws(CUDAUnavailable) {
        guard let library = DynamicLibrary(firstOf: chosen.map { [$0] } ?? Self.names) else {
            if let chosen { throw .compilerNotOpened(path: chosen, reason: DynamicLibrary.lastFailure) }
            throw .noCompiler
        }
        func find<T>(_ name: String) throws(CUDAUnavailable) -> T {
            guard let function: T = library.function(name) else { throw .compilerTooOld(missing: name) }
            return function
        }
        let findVersion: @convention(c) (UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Int32>) -> Int32 =
            try find("nvrtcVersion")
        var (major, minor): (Int32, Int32) = (0, 0)
        _ = findVersion(&major, &minor)
        version = (major, minor)
        createProgram = try find("nvrtcCreateProgram")
        compileProgram = try find("nvrtcCompileProgram")
        logSize = try find("nvrtcGetProgramLogSize")
        log = try find("nvrtcGetProgramLog")
        imageSize = try find("nvrtcGetCUBINSize")
        image = try find("nvrtcGetCUBIN")
        destroyProgram = try find("nvrtcDestroyProgram")
        errorText = try find("nvrtcGetErrorString")
    }

    /// A CUBIN of `source`, whose `#include`s find `headers`.
    ///
    /// - Throws: `CUDAUnavailable.kernelsNotCompiled` with the compiler's log.
    func compile(
        _ source: String, name: String, headers: [(name: String, text: String)], options: [String]
    ) throws(CUDAUnavailable) -> [UInt8] {
        var program: Program?
        var code = withTexts(headers.map(\.text)) { texts in
            withTexts(headers.map(\.name)) { names in
                createProgram(&program, source, name, Int32(headers.count), texts, names)
            }
        }
        guard code == 0, let created = program else { throw failure(code) }
        defer { _ = destroyProgram(&program) }
        code = withTexts(options) { compileProgram(created, Int32(options.count), $0) }
        guard code == 0 else { throw failure(code, log: log(of: created)) }
        var size = 0
        code = imageSize(created, &size)
        guard code == 0, size > 0, size <= 1 << 30 else { throw failure(code, log: "no code for this architecture") }
        var bytes = [UInt8](repeating: 0, count: size)
        code = bytes.withUnsafeMutableBytes { image(created, $0.bindMemory(to: CChar.self).baseAddress!) }
        guard code == 0 else { throw failure(code) }
        return bytes
    }

    private func withTexts(_ texts: [String], _ body: (UnsafePointer<Text?>) -> Int32) -> Int32 {
        let copies = texts.map { Array($0.utf8CString) }
        func next(_ index: Int, _ pointers: [Text?]) -> Int32 {
            guard index < copies.count else { return pointers.withUnsafeBufferPointer { body($0.baseAddress!) } }
            return copies[index].withUnsafeBufferPointer { next(index + 1, pointers + [$0.baseAddress]) }
        }
        // One more, so that the array has an address even if it is empty.
        guard !texts.isEmpty else { return withUnsafePointer(to: Text?.none) { body($0) } }
        return next(0, [])
    }

    private func log(of program: Program) -> String {
        var size = 0
        guard logSize(program, &size) == 0, size > 1, size <= 1 << 24 else { return "" }
        var text = [CChar](repeating: 0, count: size + 1)
        guard log(program, &text) == 0 else { return "" }
        let whole = text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        let lines = whole.split(separator: "\n")
        // What is wrong comes first; the rest follows from it.
        let errors = lines.filter { $0.contains("error") }
        return String((errors.first ?? lines.first ?? "").prefix(400))
    }

    private func failure(_ code: Int32, log: String = "") -> CUDAUnavailable {
        let text = errorText(code).map { String(cString: $0) } ?? "error \(code)"
        return .kernelsNotCompiled(log: log.isEmpty ? text : "\(text): \(log)")
    }
}
