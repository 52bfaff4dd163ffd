import SystemLibrary

/// A shared library that is opened at run time and stays open: drivers do not survive being closed.
struct DynamicLibrary: @unchecked Sendable {
    let name: String
    private let handle: UnsafeMutableRawPointer

    /// The first of `names` that can be opened.
    init?(firstOf names: [String]) {
        for name in names {
            if let handle = dlopen(name, RTLD_NOW | RTLD_LOCAL) {
                self.name = name
                self.handle = handle
                return
            }
        }
        return nil
    }

    /// The library's function of that name, of type `T`, which must be `@convention(c)`; nil where it has none.
    func function<T>(_ name: String, as type: T.Type = T.self) -> T? {
        dlsym(handle, name).map { unsafeBitCast($0, to: T.self) }
    }

    /// Why the last `dlopen` failed, in the system's words.
    static var lastFailure: String { dlerror().map { String(cString: $0) } ?? "no reason was given" }
}

/// Where the CUDA back end finds what is not part of the package.
package struct CUDAEnvironment: Sendable {
    /// The driver's library in place of `libcuda.so.1`: `SIGMA_CUDA_DRIVER`.
    package var driver: String?
    /// NVRTC's in place of the usual names: `SIGMA_NVRTC`.
    package var compiler: String?
    /// Where compiled kernels are kept: `$XDG_CACHE_HOME/sigma`, or `~/.cache/sigma`; nil: nowhere.
    package var cacheFolder: String?

    package init(driver: String?, compiler: String?, cacheFolder: String?) {
        self.driver = driver
        self.compiler = compiler
        self.cacheFolder = cacheFolder
    }

    /// As the process's environment says.
    package init() {
        driver = environmentText("SIGMA_CUDA_DRIVER")
        compiler = environmentText("SIGMA_NVRTC")
        if let cache = environmentText("XDG_CACHE_HOME"), cache.hasPrefix("/") {
            cacheFolder = cache + "/sigma"
        } else {
            cacheFolder = environmentText("HOME").map { $0 + "/.cache/sigma" }
        }
    }
}

/// A variable of the environment that is set to something.
private func environmentText(_ name: String) -> String? {
    guard let value = getenv(name), value.pointee != 0 else { return nil }
    return String(cString: value)
}
