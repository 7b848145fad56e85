"""The original tables: where their files come from, and how their columns are laid out."""

from __future__ import annotations

from collections.abc import Mapping

from carelab.data.fetching import RemoteFile, Source

__all__ = [
    "ADULT",
    "ADULT_COLUMNS",
    "BANK",
    "BANK_COLUMNS",
    "COMPAS",
    "COMPAS_COLUMNS",
    "GERMAN",
    "GERMAN_COLUMNS",
]

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"

ADULT = Source(
    name="adult",
    description="UCI Adult census income, 32561 + 16281 rows",
    licence="CC BY 4.0 (UCI)",
    files=(
        RemoteFile(
            path="adult/adult.data",
            address=f"{_UCI}/adult/adult.data",
            sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            size=3974305,
        ),
        RemoteFile(
            path="adult/adult.test",
            address=f"{_UCI}/adult/adult.test",
            sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
            size=2003153,
        ),
    ),
)

GERMAN = Source(
    name="german",
    description="UCI Statlog German credit, 1000 rows",
    licence="CC BY 4.0 (UCI)",
    files=(
        RemoteFile(
            path="german/german.data",
            address=f"{_UCI}/statlog/german/german.data",
            sha256="b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871",
            size=79793,
        ),
    ),
)

BANK = Source(
    name="bank",
    description="UCI Bank marketing, 45211 rows",
    licence="CC BY 4.0 (UCI)",
    files=(
        RemoteFile(
            path="bank/bank.zip",
            address=f"{_UCI}/00222/bank.zip",
            sha256="99d7e8eb12401ed278b793984423915411ea8df099e1795f9fefe254f513fe5e",
            size=579043,
        ),
    ),
)

COMPAS = Source(
    name="compas",
    description="ProPublica COMPAS two-year recidivism, 6172 rows after its usual filter",
    licence="public records released by ProPublica; no licence file",
    files=(
        RemoteFile(
            path="compas/compas-scores-two-years.csv",
            address="https://raw.githubusercontent.com/propublica/compas-analysis/"
            "bafff5da3f2e45eca6c2d5055faad269defd135a/compas-scores-two-years.csv",
            sha256="c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d",
            size=2546489,
        ),
    ),
)

# The columns in the order of each file: the documented categories, or none for numbers.
ADULT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "age": (),
    "workclass": (
        *("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov"),
        *("State-gov", "Without-pay", "Never-worked", "?"),
    ),
    "fnlwgt": (),
    "education": (
        *("Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th", "HS-grad"),
        *("Some-college", "Assoc-voc", "Assoc-acdm", "Bachelors", "Masters", "Prof-school"),
        "Doctorate",
    ),
    "education_num": (),
    "marital_status": (
        *("Married-civ-spouse", "Divorced", "Never-married", "Separated", "Widowed"),
        *("Married-spouse-absent", "Married-AF-spouse"),
    ),
    "occupation": (
        *("Tech-support", "Craft-repair", "Other-service", "Sales", "Exec-managerial"),
        *("Prof-specialty", "Handlers-cleaners", "Machine-op-inspct", "Adm-clerical"),
        *("Farming-fishing", "Transport-moving", "Priv-house-serv", "Protective-serv"),
        *("Armed-Forces", "?"),
    ),
    "relationship": (
        *("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
    ),
    "race": ("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
    "sex": ("Female", "Male"),
    "capital_gain": (),
    "capital_loss": (),
    "hours_per_week": (),
    "native_country": (
        *("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany"),
        *("Outlying-US(Guam-USVI-etc)", "India", "Japan", "Greece", "South", "China", "Cuba"),
        *("Iran", "Honduras", "Philippines", "Italy", "Poland", "Jamaica", "Vietnam", "Mexico"),
        *("Portugal", "Ireland", "France", "Dominican-Republic", "Laos", "Ecuador", "Taiwan"),
        *("Haiti", "Columbia", "Hungary", "Guatemala", "Nicaragua", "Scotland", "Thailand"),
        *("Yugoslavia", "El-Salvador", "Trinadad&Tobago", "Peru", "Hong"),
        *("Holand-Netherlands", "?"),
    ),
    "income": ("<=50K", ">50K"),
}

GERMAN_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "checking_status": ("A11", "A12", "A13", "A14"),
    "duration": (),
    "credit_history": ("A30", "A31", "A32", "A33", "A34"),
    "purpose": ("A40", "A41", "A42", "A43", "A44", "A45", "A46", "A47", "A48", "A49", "A410"),
    "credit_amount": (),
    "savings_status": ("A61", "A62", "A63", "A64", "A65"),
    "employment": ("A71", "A72", "A73", "A74", "A75"),
    "installment_commitment": (),
    "personal_status": ("A91", "A92", "A93", "A94", "A95"),
    "other_parties": ("A101", "A102", "A103"),
    "residence": (),
    "property_magnitude": ("A121", "A122", "A123", "A124"),
    "age": (),
    "other_payment_plans": ("A141", "A142", "A143"),
    "housing": ("A151", "A152", "A153"),
    "existing_credits": (),
    "job": ("A171", "A172", "A173", "A174"),
    "num_dependents": (),
    "own_telephone": ("A191", "A192"),
    "foreign_worker": ("A201", "A202"),
    "credit": ("2", "1"),
}

_YES_NO = ("no", "yes")
BANK_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "age": (),
    "job": (
        *("admin.", "blue-collar", "entrepreneur", "housemaid", "management", "retired"),
        *("self-employed", "services", "student", "technician", "unemployed", "unknown"),
    ),
    "marital": ("divorced", "married", "single"),
    "education": ("primary", "secondary", "tertiary", "unknown"),
    "default": _YES_NO,
    "balance": (),
    "housing": _YES_NO,
    "loan": _YES_NO,
    "contact": ("cellular", "telephone", "unknown"),
    "day": (),
    "month": (
        *("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    ),
    "duration": (),
    "campaign": (),
    "pdays": (),
    "previous": (),
    "poutcome": ("failure", "other", "success", "unknown"),
    "y": _YES_NO,
}

COMPAS_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "age": (),
    "sex": ("Female", "Male"),
    "race": (*("African-American", "Asian", "Caucasian", "Hispanic", "Native American", "Other"),),
    "juv_fel_count": (),
    "juv_misd_count": (),
    "juv_other_count": (),
    "priors_count": (),
    "c_charge_degree": ("F", "M"),
    "two_year_recid": ("0", "1"),
}
