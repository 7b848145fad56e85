"""Where the files of ACAS Xu come from: 45 networks in two formats, and ten properties."""

from __future__ import annotations

from itertools import product

from carelab.data.fetching import RemoteFile, Source

__all__ = ["ACASXU", "ACASXU_NNET", "ACASXU_PROPERTIES", "INDICES"]

# First and second index of each network, in the order of the files below.
INDICES = tuple(product(range(1, 6), range(1, 10)))

_COMPETITION = (
    "https://raw.githubusercontent.com/stanleybak/vnncomp2021/"
    "90419aadcf06cf543ce5c1706cae1059dc9fa6cf/benchmarks/acasxu"
)
_RELUPLEX = (
    "https://raw.githubusercontent.com/guykatzz/ReluplexCav2017/"
    "60b482eec832c891cb59c0966c9821e40051c082/nnet"
)
_LICENCE = "CC BY 4.0 (stated with the NNet files)"
_ONNX_SIZE = 55889

_ONNX = (
    "843f7110bf5a8b7f0eeb9b1c548d9d558db9099328b392423d5a7444a0656dd4",
    "a2954b14f943f256959e7ead863a0f5dcaf793d70ae824066e111388e4336338",
    "66fea39416ab610634d11d5838e1d3f6bde82c4cd7b1b105b9bf8d33c7f7b7bf",
    "4d0b14971798410b46073cf2ef59a039ecd6d156639979a70680c6261451a18b",
    "c01dcc5f6832c7f4123280be19edbe94b6c22affc30bb78db0b573a121ef1a1f",
    "93fad63b1885f91cd00031cc2f60c8e5ffeab9ae349eb84d3fd4e1bdd611cccc",
    "3ee7d1ff3f1dfdf1751d79f16fd4d2817e2a9a179c80553099d506330eab73d1",
    "bf87cefce3835f0a94ecd0a79bca7caccdbdc13fc8edec500656e879e27aa5ed",
    "6c5a301a1f08f5a7a99db25c631bf60dea8f842475cb2d0989c9654dec8184d5",
    "2163dcf3f92f673400ee1a39e0d1148159d2228508157c5dafb085f90582fce2",
    "9d1f3cd4dcb0eb22f59b569bb99a7efcb73ab4c878f0379e652f9f46d96e6ad6",
    "bcc6138bb0958b2ce306eb3501465c86aa34d3e66070adab13d35cd732aaa018",
    "1fb5382456712bfdaa00ae8d57645865fb18a68f504200cad7e507e68b0cb4a8",
    "a4230ec706a0ea4405b1a5e554934a25505d239ebccfd9feb833a65f2ff0013a",
    "6fdba7a76fe9703961a261c0cd7e7bfcd01d80f868523faedc410b9db9618b42",
    "4573961576bae0c320b090df5d7a0c13a5efe543cc9c4afc2b91bd85bdc0e48c",
    "c58cad33463c060533b5d51a1ecb8771b1788b93cb15dbf5b90ddce197e12753",
    "159a06a9957a252d7e7ee02f206b6e20c5e8f262153d836a7ab07bd58df08861",
    "869ed569e678663bc3a2c726e15f91e4ff2cb63cc27f96236160040cb4bc3227",
    "6fd3d44b7c2e4cebeac227e79899d5829ddd528f6f536962452bb6a8b0e9c7b5",
    "65d46de40b0af23580f3203c8251f68dc22a8b0d727bda59e46d9b904878b65c",
    "6c42ac60450348250b88f594c40af5b3902a4e4e661bf824ddf3bcc8efaf3142",
    "a5f371d3a4f940569732a176a322d4cc0c1d97bbba27945b495998a10b8e9801",
    "0b6f5ae9b52b760a035fe0c59c8bf3e1df47448fed99d631cf8092ca8cb906af",
    "cffff88dbd885b6034b17a3872beb0eba66451dec5c95207dd24cdfd0352ed81",
    "06ae0d7735d9658df2b5ea1f8a8e28dd0783ebb6ed990f89d04e09ce7c6fa5ff",
    "cd65bcfbc51bb645a707e9fa49a375044d1cc04364e12f3cb56e3fc7bbbf86eb",
    "9bb5eb10273f2c3aec12ca459a031f66a424c1ce4c39c4823b4292fe34434273",
    "0be3c9b3dc9b2cdfd3024b90200f8b9bbd0d265bdb5bf02aa08ae4840f022b68",
    "fec7c0eb68ef0f907c5f0a4affbece9fe1141a59f9e29ea6676674a58ebb4e6f",
    "80e646ea7d54b8092f22a8babb93bd3ebc3c71c9e8803ce87efcc71726a300ca",
    "d914e766ba91557d913662e74e2e216ace0acb6da0cda5769a5e647a010284be",
    "0647803e5ddadc31f6a80688970a140756a9b5b63ef3581a76299e6de8458c87",
    "3c0d57b88b9fa89e1d88b4b99560e4ce1f85d070c590758b0e0912a88c8b326c",
    "4427bb0f30e0adaeebdb4d5d3de02809e3fc747a0c2abebd8e37d87f532af7e3",
    "5d49ac1878feb4d38a3efca56c2e30a1091dcc9b391161f41ebaea03991b83a3",
    "8faeb4bc5cf89cb6972f11b753e04bb7aba9ea9993ac062001c679afd366473b",
    "05548e8aea29ece7cd68fd69523b0a6dac857901fb307959d5d29ef28dc5a5b6",
    "554f08a8e04567562164e3e1a0f742d5212c4f4f93b9134aea728b3a28c713a9",
    "658c2ff79db600c7658c629a90b14eff12da3a0f05813f3bd623ecf485d83c3e",
    "66c23638354e0837ef42a0f98ea6f0fbfb4d450a1e1dd736d96f2d85d1d6a645",
    "0f52315536e6665b798ef9cbf1decb685b45e7a8f9de527ee6fa3b739749688b",
    "8320de18ff931e221ce8a3a4030210f84f7bc0a222c945d31713d2bfd1771862",
    "1742e6d40a2876ede23f8c23574aad57a0929098e650c10c8c85d31b07ac2309",
    "b5feee7f6b24ff8588af61826128e551ecae042579c3f6e13d82751988d90940",
)

_NNET = (
    (167509, "b79d4bc4056ab44a8985ad2e3eed646a20610422c913367f63060f7680573ce3"),
    (167672, "f9bb743a73946e4c1898b2a0c43b33e9d49d4f0646e25f402bed044994f5103e"),
    (167380, "0daa28a27bb93fd6984e8ca0c9f5a1eb57db3036c20fe74d7d30e9ec1fe2f5c9"),
    (167362, "98d97c5eb680f2ce1ef66d4099ee8d011c5b4e41b253e8b05b451405f3d0f905"),
    (167595, "f5d88b289bb1c9cd52a20c5481d61a64dcc31c2e7550e0f5c3b19b5f41ea6adf"),
    (167501, "ae59a2c24c3503fa6434dcb798b44d0f70ec74bf65a7728e688ab72e07471e1e"),
    (167424, "74d2738e5f4fb8ee5d2b31fa08f34f7cb26850759381f002fd1d4975ec064bbf"),
    (167366, "052c59ed00fcb485e91dfa15b782e6b36e420ad33a39376640c2a43888308647"),
    (167482, "dd1c706db3c6523402929205aa61b947adfaa060da596232798de7deafad69fc"),
    (167464, "2b0df0f036bb0e55cc6889df0e25f45b653e6374c2bdc89335db6172f062742a"),
    (167718, "223849ba697e73cba3b9cc253b70b2ebd0e449d2fec176d0ad994f85f3ffd934"),
    (167592, "1a0d6e91ee009bb2e9982f5dd5a2cdcb8e746665a1ab67de49173cce00670990"),
    (167500, "d656f17fb23d974b22aeb9ee2bfc386e718b79055c0bf40f190e7beb23c2dcde"),
    (167469, "ba6ed6ff7e9fff2dd1a5c509c2f6fee6698f0b16c36017a6e79e5721b92c3a84"),
    (167537, "2db5102d1c1b26e01cd98c9618bbdb67eb6ba201b8842f3c288742e92dba317d"),
    (167697, "827a0c948fa2a593af3e34bf400f72e86f02fa5378f0d9a4e02c1d2460efb9f4"),
    (167467, "8b5c812ce9e52548af9bd42326e5e010ed741502cc2a43273c97b2d33bd86355"),
    (167663, "9d07e4b4434c35c466c900ac3138e04b83f7d11bdff4e284b33b4c65674cca1a"),
    (167667, "4459c91d7351421840c9ac91ed2494b34a4f7ed57562c05f28e47859494a820b"),
    (167596, "f426fcd6351e8dd2120b88250c93af4e29b9d389348320b877b8155280b9bb42"),
    (167539, "e51d46b0dbca25e5da10147b41af128562383b11d1f3fed751cc125c540d7514"),
    (167610, "09113b70cb32f1e4ad59e09a47b3248c62b53808113ccda57149e50240aabefe"),
    (167705, "31f9e35131174983dd675a9913112c7ef941bc79326054987f1a6f0c0468f9ac"),
    (167306, "cec6f4b20ceaf0fe29064e1e54452d8a986f054d02d5ea1a10ae4f9e71671b22"),
    (167428, "de7f08983b8c6aa049ccde01a2e5516a539d91091734896bcb204e0457ff1acc"),
    (167789, "41c30b60005a3b61f6f4bfb89a31a33de4b27bbbe21c6264c5f14211867d59d8"),
    (167570, "bd9d06130ed662049cee4afefa0c382e324350592d355cb73391ffc2f95fe8ed"),
    (167600, "e0e65360e95fd743775364ab06568462d6963113d77daea8bad9d3c42f6d8d05"),
    (167648, "563a56e49f4a585ae482c204d98f8d4fb976aa27b0063c7c4bc4c92bbabddd67"),
    (167662, "ef18cdf4e1d6a3a5236205df67ba2e7268922bb85ae7a7e284c8cd6c045fd89a"),
    (167575, "9fb21b0290beca270793a4572527c6832714b0e67eda7511374483912a80c31e"),
    (167349, "d8b06119e311b2ce6c68f9b74e455fd97a144fc0a11b99b8524356c5be881bbe"),
    (167457, "32c0313e9b9a43c40d775c3131ecd2fac4c0b2b47da207be84b55896b8bf0761"),
    (167614, "5c0e5788b3f3ae2e31efeded2a97c5c869d8bd1c153ff92ad0c8e027d56ba77b"),
    (167375, "49376d78d0b185edd76eda950e4b465c9854178d35c08b65eb8e25694592c218"),
    (167257, "a289aa4366dfc096d4bb6781aedb2910aaec39c200a37ac84db3c133a4aba583"),
    (167747, "be1e032f7735af0e2005abce925488170dd040e146b3096d43747ca1a8b96873"),
    (167708, "a9df49f482430a83eb9e84e5b68b9f47589d1f90f131a0bbb550eab1a75e4a0d"),
    (167551, "7d31ce2a72f7aad58d630ac1af11ef5e668370692e43cbbc0c102fe8e3440656"),
    (167646, "fe383a6da8442a3035d87931c3be175caaaf5defb31a2efcaf24fdb63f689aa2"),
    (167618, "9b3bbf48c289801df9ae32e388934c7af14f476d5a7f0ed848af1690087cc957"),
    (167657, "34d1a19de348bbd0523124f28938485c5b6eb98b51306da584cdb3f5e16b54ef"),
    (167580, "0c0b34cb7fcc83d83d132df8e8ab74c39dc2ba15e877af1d16315a1d09851f98"),
    (167505, "6c334e0b76e93cdd84ee31a533fecea94cf0cb87710a043b9e4736abb05e9197"),
    (167495, "0a6d5be8aa604d18f912470f30055b902e10a66854635c71644fb1804e3ae65d"),
)

_VNNLIB = (
    (888, "7a9a9930711817c6cc39940f5c1d0f8c51f2ed82f38e203c4b5de03c19bd4ced"),
    (848, "ad309a9574d796b1e1772681185f780a277cf2f140300b676625324c158f42a0"),
    (833, "68f17e66d71ec73b115950ddfff61936bb45e49c63e4c36f96280ceb99872222"),
    (831, "d31278d83027638e961546d8f612f28633b61ef4c633c23621236ffeac62123d"),
    (893, "4f5f278eefea0c09e80807ef78c89dff6bc0651a7540a5320d182a668cf11214"),
    (1241, "194f44ec17d4f23e97830ca1f9995d045879a5465ce5b53e689a488a2b653205"),
    (905, "c0b5c2fbf733e8d9e593e4c916db6c6df03d2c83d505040af17b622021f6d788"),
    (904, "b7f19aec5ace60da47d69e8a42882591da3d3b9d16174da95325168eb1d2df75"),
    (886, "6f889ada371352b85a19bdbd11e50664878de2b608cd3ade6e2f315ebf432260"),
    (883, "4c38ffe46e7a5faeb539b6af6d3d415a8f024004a7f1c6a6fcf258235c845f04"),
)


def _network(first: int, second: int, ending: str) -> str:
    return f"ACASXU_run2a_{first}_{second}_batch_2000.{ending}"


ACASXU = Source(
    name="acasxu",
    description="ACAS Xu collision avoidance, 45 networks of 6 x 50 neurons in ONNX",
    licence=_LICENCE,
    files=tuple(
        RemoteFile(
            path=f"acasxu/onnx/{_network(*indices, 'onnx')}",
            address=f"{_COMPETITION}/{_network(*indices, 'onnx')}",
            sha256=sha256,
            size=_ONNX_SIZE,
        )
        for indices, sha256 in zip(INDICES, _ONNX, strict=True)
    ),
)

ACASXU_NNET = Source(
    name="acasxu-nnet",
    description="the same 45 networks as they were published first, in NNet",
    licence=_LICENCE,
    files=tuple(
        RemoteFile(
            path=f"acasxu/nnet/{_network(*indices, 'nnet')}",
            address=f"{_RELUPLEX}/{_network(*indices, 'nnet')}",
            sha256=sha256,
            size=size,
        )
        for indices, (size, sha256) in zip(INDICES, _NNET, strict=True)
    ),
)

ACASXU_PROPERTIES = Source(
    name="acasxu-properties",
    description="properties 1 to 10 of ACAS Xu in VNN-LIB",
    licence="none stated; the properties are those of Katz et al., CAV 2017",
    files=tuple(
        RemoteFile(
            path=f"acasxu/vnnlib/prop_{number}.vnnlib",
            address=f"{_COMPETITION}/prop_{number}.vnnlib",
            sha256=sha256,
            size=size,
        )
        for number, (size, sha256) in enumerate(_VNNLIB, start=1)
    ),
)
