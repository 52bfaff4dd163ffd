import CCUDA
import Foundation
import SystemLibrary
import Testing

/// NVIDIA's own run-time compiler makes a program of the kernels for every architecture that is supported. It needs no GPU.
@Suite(.serialized) struct CUDACompilerTests {
    #if os(Linux)
        /// NVRTC's entry points.
        struct Compiler {
            typealias Create =
                @convention(c) (
                    UnsafeMutablePointer<OpaquePointer?>, UnsafePointer<CChar>, UnsafePointer<CChar>, Int32,
                    UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<UnsafePointer<CChar>?>?
                ) -> Int32
            typealias Compile = @convention(c) (OpaquePointer?, Int32, UnsafePointer<UnsafePointer<CChar>?>?) -> Int32
            typealias Size = @convention(c) (OpaquePointer?, UnsafeMutablePointer<Int>) -> Int32
            typealias Text = @convention(c) (OpaquePointer?, UnsafeMutablePointer<CChar>) -> Int32
            typealias Destroy = @convention(c) (UnsafeMutablePointer<OpaquePointer?>) -> Int32

            let create: Create
            let compile: Compile
            let logSize: Size
            let log: Text
            let imageSize: Size
            let image: Text
            let destroy: Destroy

            init?(path: String) {
                guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL) else { return nil }
                func entry<T>(_ name: String, _: T.Type) -> T? {
                    dlsym(library, name).map { unsafeBitCast($0, to: T.self) }
                }
                guard let create = entry("nvrtcCreateProgram", Create.self),
                    let compile = entry("nvrtcCompileProgram", Compile.self),
                    let logSize = entry("nvrtcGetProgramLogSize", Size.self),
                    let log = entry("nvrtcGetProgramLog", Text.self),
                    let imageSize = entry("nvrtcGetCUBINSize", Size.self),
                    let image = entry("nvrtcGetCUBIN", Text.self),
                    let destroy = entry("nvrtcDestroyProgram", Destroy.self)
                else { return nil }
                self.create = create
                self.compile = compile
                self.logSize = logSize
                self.log = log
                self.imageSize = imageSize
                self.image = image
                self.destroy = destroy
            }

            /// The machine code of the kernels, or what the compiler said.
            func program(_ options: [String]) -> (image: [UInt8]?, log: String) {
                var count: Int32 = 0
                let sources = Array(UnsafeBufferPointer(start: sigma_cuda_sources(&count), count: Int(count)))
                var program: OpaquePointer?
                let headers: [UnsafePointer<CChar>?] = sources.dropFirst().map(\.text)
                let names: [UnsafePointer<CChar>?] = sources.dropFirst().map(\.name)
                guard create(&program, sources[0].text, sources[0].name, count - 1, headers, names) == 0 else {
                    return (nil, "no program")
                }
                defer { _ = destroy(&program) }
                let copies = options.map { strdup($0) }
                defer { for copy in copies { free(copy) } }
                let pointers: [UnsafePointer<CChar>?] = copies.map { UnsafePointer($0) }
                let status = compile(program, Int32(options.count), pointers)
                var size = 0
                _ = logSize(program, &size)
                var text = [CChar](repeating: 0, count: max(1, size))
                _ = log(program, &text)
                let message = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                guard status == 0, imageSize(program, &size) == 0, size > 0 else { return (nil, message) }
                var bytes = [CChar](repeating: 0, count: size)
                guard image(program, &bytes) == 0 else { return (nil, message) }
                return (bytes.map { UInt8(bitPattern: $0) }, message)
            }
        }

        /// The library that SIGMA_NVRTC names, else the first that is found under its usual names. A driver's double is none.
        static let compiler: Compiler? = {
            let named = ProcessInfo.processInfo.environment["SIGMA_NVRTC"].map { [$0] }
            let usual = ["13", "12", "11.2"].flatMap {
                ["libnvrtc.so.\($0)", "/usr/local/cuda/lib64/libnvrtc.so.\($0)"]
            }
            return (named ?? usual).lazy.compactMap { Compiler(path: $0) }.first
        }()

        static var fixedOptions: [String] {
            var options: [String] = []
            var next = sigma_cuda_options()!
            while let option = next.pointee {
                options.append(String(cString: option))
                next += 1
            }
            return options
        }

        static let missing = "there is no libnvrtc (PyPI: nvidia-cuda-nvrtc-cu12; its path in SIGMA_NVRTC)"

        @Test(
            .enabled(if: compiler != nil, "\(missing)"),
            arguments: ["sm_80", "sm_86", "sm_89", "sm_90"])
        func compiles(architecture: String) throws {
            // All head sizes on one architecture, then one of each on the others: every source is compiled for every target.
            let steps = ["sm_80": 4, "sm_86": 8, "sm_89": 16, "sm_90": 6][architecture]!
            let result = try #require(Self.compiler).program(
                ["--gpu-architecture=\(architecture)", "-DSIGMA_HEAD_STEPS=\(steps)"] + Self.fixedOptions)
            let image = try #require(result.image, "\(result.log)")
            #expect(!result.log.contains("warning"), "\(result.log)")
            // The names of kernels stand in the image's symbols.
            var next = sigma_cuda_kernel_names()!
            while let name = next.pointee.map({ String(cString: $0) }) {
                next += 1
                let isOther = name.hasPrefix("sigma_attend_") && !name.contains("_\(steps)_")
                let found = image.firstRange(of: Array(".text.\(name)\0".utf8)) != nil
                #expect(found == !isOther, "\(name)")
            }
        }
    #endif
}
