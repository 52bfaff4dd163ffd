import CCUDA

/// The kernels for one device, compiled or from the cache, and the way to launch them.
final class CUDAKernels: @unchecked Sendable {
    /// One kernel.
    final class Function {
        let name: String
        fileprivate let handle: CUDADriver.Handle
        /// Dynamic shared memory that its blocks may have so far.
        fileprivate var sharedLimit: UInt32 = 48 << 10

        fileprivate init(name: String, handle: CUDADriver.Handle) {
            self.name = name
            self.handle = handle
        }
    }

    let device: CUDADevice
    let embed: Function
    let prepare: Function
    let project: Function
    let multiply: Function
    let ropeStore: Function
    let route: Function
    let choose: Function
    let sort: Function
    let expertGate: Function
    let expertDown: Function
    let combine: Function
    let top: Function
    let read: Function
    let peakInt8: Function
    let peakFP32: Function
    private let splits: [KVType: Function]
    private let tiles: [KVType: Function]
    private let module: CUDADriver.Handle
    /// Whether they were compiled now, and not found in the cache.
    let wereCompiled: Bool

    /// - Throws: `CUDAUnavailable`.
    init(_ device: CUDADevice, headDim: Int, _ environment: CUDAEnvironment) throws(CUDAUnavailable) {
        self.device = device
        let steps = sigma_cuda_head_steps(Int32(headDim))
        let program = try Program(device, steps: steps, environment)
        let cache = KernelCache(folder: environment.cacheFolder)
        var module: CUDADriver.Handle?
        var wereCompiled = false
        var image = cache.image(for: program.key)
        if image == nil || device.driver.loadModule(&module, image!) != 0 {
            // What the driver refuses is worth as much as what is damaged.
            image = try program.compile()
            wereCompiled = true
            let code = device.driver.loadModule(&module, image!)
            guard code == 0 else {
                throw .driverFailed(call: "cuModuleLoadData", status: device.driver.status(code))
            }
            cache.store(image!, for: program.key)
        }
        let loaded = module!
        self.module = loaded
        self.wereCompiled = wereCompiled
        func find(_ name: String) throws(CUDAUnavailable) -> Function {
            var handle: CUDADriver.Handle?
            let code = device.driver.moduleFunction(&handle, loaded, name)
            guard code == 0, let handle else {
                throw .driverFailed(call: "cuModuleGetFunction of \(name)", status: device.driver.status(code))
            }
            return Function(name: name, handle: handle)
        }
        embed = try find("sigma_embed")
        prepare = try find("sigma_prepare")
        project = try find("sigma_project")
        multiply = try find("sigma_multiply")
        ropeStore = try find("sigma_rope_store")
        route = try find("sigma_route")
        choose = try find("sigma_choose")
        sort = try find("sigma_sort")
        expertGate = try find("sigma_expert_gate")
        expertDown = try find("sigma_expert_down")
        combine = try find("sigma_combine")
        top = try find("sigma_top")
        read = try find("sigma_read")
        peakInt8 = try find("sigma_peak_int8")
        peakFP32 = try find("sigma_peak_fp32")
        var splits: [KVType: Function] = [:]
        var tiles: [KVType: Function] = [:]
        for type in KVType.allCases {
            splits[type] = try find("sigma_attend_splits_\(steps)_\(type.rawValue)")
            tiles[type] = try find("sigma_attend_tiles_\(steps)_\(type.rawValue)")
        }
        self.splits = splits
        self.tiles = tiles
    }

    deinit {
        try? device.use()
        _ = device.driver.unloadModule(module)
    }

    func attendSplits(_ type: KVType) -> Function { splits[type]! }
    func attendTiles(_ type: KVType) -> Function { tiles[type]! }

    /// Enqueues a kernel; it is given `parameters` by value.
    func launch<Parameters: BitwiseCopyable>(
        _ function: Function, _ shape: sigma_cuda_launch, _ parameters: Parameters, in stream: CUDAStream
    ) throws(CUDAStatus) {
        let driver = device.driver
        if shape.shared > function.sharedLimit {
            try driver.check(
                driver.setFunctionAttribute(
                    function.handle, CUDADriver.functionMaxDynamicShared, Int32(shape.shared)))
            function.sharedLimit = shape.shared
        }
        var copy = parameters
        let code = withUnsafeMutablePointer(to: &copy) { pointer in
            var argument: UnsafeMutableRawPointer? = UnsafeMutableRawPointer(pointer)
            return driver.launch(
                function.handle, shape.grid_x, shape.grid_y, shape.grid_z, shape.block, 1, 1, shape.shared,
                stream.handle, &argument, nil)
        }
        try driver.check(code)
    }

    /// The sources, and what they are compiled with.
    private struct Program {
        let compiler: CUDACompiler
        let sources: [(name: String, text: String)]
        let options: [String]
        let key: KernelCache.Key

        init(_ device: CUDADevice, steps: Int32, _ environment: CUDAEnvironment) throws(CUDAUnavailable) {
            compiler = try CUDACompiler(environment.compiler)
            var count: Int32 = 0
            let texts = UnsafeBufferPointer(start: sigma_cuda_sources(&count), count: Int(count))
            sources = texts.map { (String(cString: $0.name), String(cString: $0.text)) }
            var options: [String] = []
            var next = sigma_cuda_options()!
            while let option = next.pointee {
                options.append(String(cString: option))
                next += 1
            }
            options += ["-DSIGMA_HEAD_STEPS=\(steps)", "--gpu-architecture=\(device.architecture)"]
            self.options = options
            key = KernelCache.Key(
                sources: sources, options: options, compiler: compiler.version, driverVersion: device.driverVersion,
                architecture: device.architecture)
        }

        func compile() throws(CUDAUnavailable) -> [UInt8] {
            try compiler.compile(
                sources[0].text, name: sources[0].name, headers: Array(sources.dropFirst()), options: options)
        }
    }
}
